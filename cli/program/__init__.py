"""How the program is put together: its commands by name, what all of them share, their help and their completion."""
