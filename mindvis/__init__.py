"""mindvis: reconstruction of seen images from human fMRI (MinD-Vis, Chen et al., CVPR 2023, arXiv 2211.06956)."""

__version__ = "0.1.0"
