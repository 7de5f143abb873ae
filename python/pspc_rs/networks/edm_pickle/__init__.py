"""A closed reader of the pickles that EDM's networks are published in.

Such a file asks to import and to call: it even carries Python source that the original loader runs. Here its operations
are walked one by one, names stand for themselves and nothing else, and whatever does not belong in such a file is
refused by name. What remains are class names, arguments and numbers, which are compared with our own modules.
"""
