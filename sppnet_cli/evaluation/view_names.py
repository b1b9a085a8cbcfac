"""Names of the views of an image that a network classifies; `views` cuts them out.  Free of torch, for `--help`."""

CROP_VIEWS = ("10", "10central", "1crop")
FULL_VIEWS = ("1full", "8+2full")
MAP_VIEWS = ("maps:10", "maps:96", "maps:96+2full")
VIEWS = CROP_VIEWS + FULL_VIEWS + MAP_VIEWS
