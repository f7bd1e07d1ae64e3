"""The command line: `ugmm-ppl fit`, `ugmm-ppl predict`, `ugmm-ppl report`."""
