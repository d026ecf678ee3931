"""What every part needs: errors, progress, keyed draws, whole files, shared work, plots."""
