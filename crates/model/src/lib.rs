//! Words of service discovery: keys, services, endpoints, versions, reasons. No I/O, no async, no clock.
