"""How anything is shown: widths, units, colours, tables, JSON. Nothing here knows what a checkpoint is."""
