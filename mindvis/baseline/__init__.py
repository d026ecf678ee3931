"""The linear baseline: ridge regression from fMRI to what the same diffusion model decodes."""
