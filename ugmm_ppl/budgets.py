"""How much memory and work the library allows itself; each number once.

An entry is a number of an array, 4 bytes in float32 and 8 in float64. The numbers are read when they are used, so that
one that is set here holds from then on.
"""

CACHED = 2**20
"""Entries of a temporary that stays in the cache of a CPU: values of a mixture, neurons times inputs, outputs of
some draws, in parts."""

BLOCK = 2**20
"""Entries of the user's data that are looked at, or standardised, together."""

TEMPORARY = 2**22
"""Entries of the largest temporary of an evaluation: rows of a model, of a circuit's query, pairs of a CRPS."""

JACOBIANS = 2**21
"""Entries of the largest temporary of a Laplace approximation, the Jacobians of a few rows."""

COMPILED_CHUNK = {"cpu": 2**11, "elsewhere": 2**24}
"""Entries of a chunk of equation (2) under JAX. On the CPU mostly one row at a time: then XLA fuses it away."""

HELD = 2**23
"""Entries of draws that are held together, draws x parameters, and of the outputs of a chunk of rows."""

FULL_GUIDE = 4096
"""Most entries of a guide with a full covariance: its factor has the square of that."""

DIAGNOSED = 2**24
"""Entries of draws that a diagnosis holds."""

TREE = 2**25
"""Entries of draws that an ArviZ tree holds where it is left to decide: chains x draws x parameters."""

SUMMARISED = 2**26
"""Entries of draws that are held at a time where a tree summarises them; the draws are made again for each part."""

EXPORTED = 2e7
"""Entries of the posterior that the command line exports, parameters x draws."""

REPEATED_ROWS = 2**17
"""Rows that whole weights of rows may make."""

LOCAL_VARIABLES = 20_000
"""Most values of latent layers, over all rows, that "nuts" samples beside the parameters."""

DIAGNOSIS_WORK = {"native": 5e10, "chunked": 5e9, "reference": 5e9}
"""Exponentials that the draws of a diagnosis may take, about half a minute: draws x rows x J K of the largest layer."""

EXPORT_WORK = {"native": 2e11, "chunked": 5e10, "reference": 5e10}
"""Exponentials that the export of the command line may take for its draws, about two minutes; likewise."""

CRPS_WORK = 2e8
"""Pairs of components, over all rows, that the CRPS of a prediction takes, ten seconds; above, it leaves out draws."""

OUTCOME_DRAWS = 2**17
"""Draws of parameters, over all rows, that quantiles and CRPS in the metrics of an `Outcome` take; above, some are left
out."""
