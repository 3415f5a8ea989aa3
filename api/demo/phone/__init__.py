"""The phone of the demo: a browser, the common app, and the card in it. It holds no secret but the card."""
