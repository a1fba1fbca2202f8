"""The synthetic city: streets, facades, ground and what stands along the road."""
