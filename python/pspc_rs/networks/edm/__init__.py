"""The networks of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.

Written from the paper and from the facts of the released checkpoints, whose tensor names these modules have. Importing
a module of this package imports torch.
"""
