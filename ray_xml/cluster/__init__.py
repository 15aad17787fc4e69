"""The Ray shell around the pure core: nothing outside this folder and jobs/ imports ray."""
