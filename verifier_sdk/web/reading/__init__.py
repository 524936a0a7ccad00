"""From a bundle to what a page shows of it. Pure: bytes in, values out.

Everything but the verdict was written by others; what does not parse becomes a sentence. The text
of request, answer and reasoning is left where it is: sizes and digests are shown.
"""
