"""A reader of the pickles that EDM's networks are published in, which runs nothing in them.

Such a file asks to import and to call: it even carries Python source that the original loader runs. Here its operations
are read one by one (`objects`); a name is looked up in a short table of our own, and any name that is not there is
refused. What remains are class names, arguments and numbers, which are compared with our own modules (`read`).
"""
