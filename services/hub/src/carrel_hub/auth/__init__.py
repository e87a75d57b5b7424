"""Who is asking: passwords, links, sessions, tokens, cookies, and the rules on who gets in."""
