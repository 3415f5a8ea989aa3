"""The demo: six processes that speak only through public interfaces."""
