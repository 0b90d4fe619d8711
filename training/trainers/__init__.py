"""Train and measure one model, by AL or by BP."""
