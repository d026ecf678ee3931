"""Looking inside a trained model: what the encoder attends to, and which regions a score depends on."""
