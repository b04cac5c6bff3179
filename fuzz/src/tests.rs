// SPDX-License-Identifier: MIT OR Apache-2.0
//! The corpora, and what little comes of changing them blindly.
