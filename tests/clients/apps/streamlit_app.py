"""A Streamlit application: its state lives as long as its WebSocket, its uploads need `_xsrf`."""

import streamlit as st

if "count" not in st.session_state:
    st.session_state.count = 0
if st.button("Count"):
    st.session_state.count += 1
st.write(f"counted {st.session_state.count}")
file = st.file_uploader("A file")
if file is not None:
    st.write(f"uploaded {file.name}: {len(file.getvalue())} bytes")
st.write(f"cookies: {sorted(st.context.cookies)}")
