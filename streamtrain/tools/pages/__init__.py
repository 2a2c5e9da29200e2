"""One HTML page about a run: opens from a file, needs no network, prints, and answers to pointer and keyboard.

`page` arranges what a report says into the parts that `parts` defines, `chart` is the one picture (`memory` over time,
`scores` over rows), and `render` fills the templates. `streamtrain.tools.profile` and `streamtrain.tools.report` use it.
"""
