"""The kiosk: a page on the locker's own screen, served to this machine alone.

view     what the screen shows, from what the locker has decided; pure
counter  the living screen: who watches it, what was typed at it
routes   paths to answers; whose request is heard at all
http     the rim: bytes in, bytes out, small and bounded
config   the table of the config file
page     what the browser gets

The page has no authority. It sends what a keypad or a sheet of control codes would send, and hears what a
person who stands there sees anyway. `counter`, `routes` and `http` are loaded where a kiosk is configured.
"""
