"""The page of `randfeat app`: a file for each of its tabs, and what they share.

`page.build` puts them together and `serving` puts them on 127.0.0.1. What a tab computes is in the library; here is
what a person sees, presses and is told.
"""

import os

# gradio reads these when it is imported: else it would send who uses it to its makers and ask for newer versions,
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# and reckon after each event how long all of them took, for a page of statistics that is not there
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
