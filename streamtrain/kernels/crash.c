/* What is being read, and what is said when a library ends the process meanwhile (see crash.py). The handler does nothing
 * but copy, write and _exit: all that POSIX allows in one. */

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 64
#define NAME_BYTES 512
#define LINE_BYTES 4096
#define STACK_BYTES 32768 /* of a handler: the state of a processor's registers alone may take 11 kB */

enum { FREE, FILLING, READING };

static struct {
    _Atomic int state;
    pthread_t thread;
    uint64_t turn; /* of two of a thread the later one is meant */
    char name[NAME_BYTES];
} reads[SLOTS];

static _Atomic uint64_t turns;
static _Atomic int ending;
static pthread_t main_thread;
static char before_line[16], report_at[128];

/* Also where a thread has overrun its stack there is one for the handler. It is let go of with the thread. */
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

/* This thread reads what has that name; returns the slot to leave, or -1 where all are taken. */
int st_enter_read(const char *name, int64_t nbytes)
{
    give_stack();
    for (int k = 0; k < SLOTS; k++) {
        int state = FREE;
        if (!atomic_compare_exchange_strong(&reads[k].state, &state, FILLING))
            continue;
        nbytes = nbytes < NAME_BYTES ? nbytes : NAME_BYTES - 1;
        memcpy(reads[k].name, name, (size_t)nbytes);
        reads[k].name[nbytes] = 0;
        reads[k].thread = pthread_self();
        reads[k].turn = turns++;
        atomic_store(&reads[k].state, READING);
        return k;
    }
    return -1;
}

void st_leave_read(int slot)
{
    if (slot >= 0)
        atomic_store(&reads[slot].state, FREE);
}

/* Copies what fits. */
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
    for (int k = 0; k < SLOTS; k++)
        if (atomic_load(&reads[k].state) == READING && pthread_equal(reads[k].thread, thread))
            if (found < 0 || reads[k].turn > reads[found].turn)
                found = k;
    return found;
}

static void end_process(int number, siginfo_t *info, void *context)
{
    static char line[LINE_BYTES];
    (void)context;
    if (info->si_code == SI_USER && info->si_pid != getpid()) { /* somebody else sent it, and wants what it is for */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    while (atomic_exchange(&ending, 1))
        pause(); /* another thread is at it */
    const char *name = number == SIGABRT ? "SIGABRT" : number == SIGSEGV ? "SIGSEGV" : number == SIGBUS ? "SIGBUS"
                       : number == SIGFPE ? "SIGFPE" : "SIGILL";
    size_t at = append(line, 0, before_line);
    at = append(line, at, "error: the process was ended by ");
    at = append(line, at, name);
    const int own = latest(pthread_self());
    int named = 0;
    /* Some libraries decode in threads of their own: then it is one of the reads under way. The main thread is ours. */
    for (int k = 0; k < SLOTS && (own >= 0 || !pthread_equal(pthread_self(), main_thread)); k++)
        if (own >= 0 ? k == own : reads[k].state == READING && k == latest(reads[k].thread)) {
            at = append(line, at, named++ ? ", " : " while reading ");
            at = append(line, at, reads[k].name);
        }
    if (named) {
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
    _exit(named ? 2 : 1);
}

/* From now on signals that end a process are answered. To be called by the main thread. before: what clears a line of the
 * terminal, or nothing. */
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
