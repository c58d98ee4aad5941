//! The X.509-SVID profile of a certificate.
