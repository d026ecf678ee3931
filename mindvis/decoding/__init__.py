"""From fMRI to pictures: decoding in batches, the folder of pictures, previews while a training runs."""
