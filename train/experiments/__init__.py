"""The papers' experiments as declared grids: what a row and a column are stands in TOML, a cell is done as by hand."""
