"""The same program on another host: takes requests from edges alone and hands them to sockets."""
