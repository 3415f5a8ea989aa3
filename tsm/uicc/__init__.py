"""The other end of the wire: a simulated UICC with real secure channels and a JPKI applet.

It checks and keeps every load file that it is given, but runs no bytecode: the module AID of a load file is bound to a
Python class (`open.MODULES`).
"""
