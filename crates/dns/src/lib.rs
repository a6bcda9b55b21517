//! The DNS face: names for services, answered from the catalog.
