"""The outside: translates, authorizes, answers; decides nothing."""
