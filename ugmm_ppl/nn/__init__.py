"""Networks and their layers, as pure functions of the parameters."""
