"""Everything that needs a card: tests, and measurements beside a plain peer and a ceiling (`make gpu`)."""
