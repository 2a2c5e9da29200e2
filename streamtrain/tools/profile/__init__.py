"""The memory profile of a fit. `measure` trains for a while, `recorder` samples the process meanwhile, `advice` suggests
changes, `plot` draws a picture, and `streamtrain.tools.pages` makes the page."""

from streamtrain.tools.profile.measure import Profile, profile

__all__ = ["Profile", "profile"]
