//! The proxy face: virtual IPs and node ports, forwarded to the chosen endpoints.
