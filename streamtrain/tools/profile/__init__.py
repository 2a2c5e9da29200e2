"""The memory profile of a fit. `measure` trains for a while and `recorder` samples the process meanwhile; `advice` says what
to change; `page` and `plot` draw it, from what `picture` makes of the numbers."""

from streamtrain.tools.profile.measure import Profile, profile

__all__ = ["Profile", "profile"]
