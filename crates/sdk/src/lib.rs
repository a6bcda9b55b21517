//! What a process links: register, subscribe, balance.
