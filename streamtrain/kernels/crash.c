/* Notes what each thread is reading, and names it if a library ends the process meanwhile (see crash.py). The signal
 * handler only copies, writes and calls _exit, as POSIX demands. */

#include "kernels.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#define READS 64 /* that are noted at the same time */
#define LINE_BYTES 4096
#define SCARCE_BYTES (64 << 20) /* of room, or a quarter of the limit: with less an allocation may have failed */
#define STACK_BYTES 32768 /* for the handler: the registers of some processors alone take 11 kB */

enum { FREE, FILLING, READING };

static struct {
    _Atomic int state;
    pthread_t thread;
    uint64_t turn; /* the later one of two reads of a thread counts */
    int own; /* whether it is code of the user that runs */
    char name[NAME_BYTES];
} reads[READS];

static _Atomic uint64_t turns;
static _Atomic int ending;
static pthread_t main_thread;
static char before_line[16], report_at[128];
static _Atomic int short_code = 4; /* the exit code where memory ran short */
static const struct { const void *table; const char *name; } *(*thrown)(void); /* the type of the C++ exception under way */

/* Give the handler a stack of its own in this thread, which may have overrun the other. It is freed with the thread. */
static void give_stack(void)
{
    static __thread char stack[STACK_BYTES];
    static __thread int given;
    stack_t now;
    if (given)
        return;
    given = 1;
    if (!sigaltstack(0, &now) && now.ss_flags & SS_DISABLE)
        sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, 0);
}

/* Note that this thread reads what has that name, or with own that it runs code of the user that has that name. Returns the number to leave by, or -1 where READS are noted already. */
int st_enter_read(const char *name, int64_t nbytes, int own)
{
    give_stack();
    for (int k = 0; k < READS; k++) {
        int state = FREE;
        if (!atomic_compare_exchange_strong(&reads[k].state, &state, FILLING))
            continue;
        nbytes = nbytes < NAME_BYTES ? nbytes : NAME_BYTES - 1;
        memcpy(reads[k].name, name, (size_t)nbytes);
        reads[k].name[nbytes] = 0;
        reads[k].own = own;
        reads[k].thread = pthread_self();
        reads[k].turn = turns++;
        atomic_store(&reads[k].state, READING);
        return k;
    }
    return -1;
}

void st_leave_read(int number)
{
    if (number >= 0)
        atomic_store(&reads[number].state, FREE);
}

/* Append as much of a text as fits in the line. */
static size_t append(char *line, size_t at, const char *text)
{
    for (; *text && at < LINE_BYTES - 1; text++)
        line[at++] = *text;
    return at;
}

/* The latest read of a thread, or -1. */
static int latest(pthread_t thread)
{
    int found = -1;
    for (int k = 0; k < READS; k++)
        if (atomic_load(&reads[k].state) == READING && pthread_equal(reads[k].thread, thread))
            if (found < 0 || reads[k].turn > reads[found].turn)
                found = k;
    return found;
}

/* From now on, a C++ library that ends the process because an allocation failed ends it with that code. */
void st_expect_shortage(int code)
{
    void *library = thrown ? 0 : dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
    if (library)
        *(void **)&thrown = dlsym(library, "__cxa_current_exception_type");
    short_code = code;
}

/* The private writable memory that is mapped, or -1 where the system does not tell. */
static int64_t mapped_bytes(void)
{
    char text[256] = "";
    const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    const ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    int64_t pages = 0;
    int field = 0;
    for (ssize_t k = 0; k < n && field < 6; k++) /* size, resident, shared, text, lib, data */
        if (text[k] == ' ')
            field++;
        else if (field == 5 && text[k] >= '0' && text[k] <= '9')
            pages = 10 * pages + text[k] - '0';
    return field < 5 ? -1 : pages * sysconf(_SC_PAGESIZE);
}

/* Whether little room is left under the limit of the process: not every library says that an allocation failed, or a thread
 * could not be started. */
static int is_scarce(void)
{
    struct rlimit limit;
    const int64_t mapped = mapped_bytes();
    if (mapped < 0 || getrlimit(RLIMIT_DATA, &limit) || limit.rlim_cur == RLIM_INFINITY)
        return 0;
    const int64_t most = (int64_t)limit.rlim_cur;
    return most - mapped < SCARCE_BYTES || most - mapped < most / 4;
}

static int is_shortage(int number)
{
    return number == SIGABRT && ((thrown && thrown() && !strcmp(thrown()->name, "St9bad_alloc")) || is_scarce());
}

static void end_process(int number, siginfo_t *info, void *context)
{
    static char line[LINE_BYTES];
    (void)context;
    if (info->si_code == SI_USER && info->si_pid != getpid()) { /* another process sent it: do what the signal does by default */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    while (atomic_exchange(&ending, 1))
        pause(); /* another thread is writing the line */
    const char *name = number == SIGABRT ? "SIGABRT" : number == SIGSEGV ? "SIGSEGV" : number == SIGBUS ? "SIGBUS"
                       : number == SIGFPE ? "SIGFPE" : "SIGILL";
    size_t at = append(line, 0, before_line);
    const int is_short = is_shortage(number);
    at = append(line, at, is_short ? "error: memory ran short: an allocation failed" : "error: the process was ended by ");
    at = append(line, at, is_short ? "" : name);
    const int own = latest(pthread_self());
    int named = 0, users = 0;
    /* Some libraries decode in threads of their own: then name the latest read of every thread. The main thread is ours. */
    for (int k = 0; k < READS && (own >= 0 || !pthread_equal(pthread_self(), main_thread)); k++)
        if (own >= 0 ? k == own : reads[k].state == READING && k == latest(reads[k].thread)) {
            at = append(line, at, named++ ? ", " : reads[k].own ? " in " : " while reading ");
            at = append(line, at, reads[k].name);
            users += reads[k].own;
        }
    if (is_short) {
        at = append(line, at, ", and a library ended the process: give a larger --memory");
    } else if (users) {
        at = append(line, at, ": code of your own, or a library that it uses, ends the process; it must raise an error instead");
    } else if (named) {
        at = append(line, at, named > 1 ? ": one of these" : ": the file");
        at = append(line, at, " is damaged in a way that makes a library abort; leave it out, or restore it");
    } else {
        at = append(line, at, " while nothing was being read: this is a bug in streamtrain or in a library that it uses; "
                              "please report it: ");
        at = append(line, at, report_at);
    }
    line[at++] = '\n';
    for (size_t done = 0; done < at;) {
        const ssize_t n = write(2, line + done, at - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    _exit(is_short ? short_code : named ? 2 : 1);
}

/* Answer the signals that end a process from now on. Call this from the main thread. before is what clears a line of the
 * terminal, or empty; report is where to report bugs. */
void st_answer_crashes(const char *before, const char *report)
{
    const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    append(before_line, 0, strlen(before) < sizeof before_line ? before : "");
    append(report_at, 0, strlen(report) < sizeof report_at ? report : "");
    main_thread = pthread_self();
    give_stack();
    struct sigaction action = {.sa_sigaction = end_process, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t k = 0; k < sizeof signals / sizeof *signals; k++)
        sigaction(signals[k], &action, 0);
}
