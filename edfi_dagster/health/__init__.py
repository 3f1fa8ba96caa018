"""Floor 3.5: what an operator asks of the ODSs, the lake and the warehouse. Nothing here changes any of them."""
