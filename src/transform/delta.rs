//! Content codings with a dictionary: `dcz` and `dcb` (RFC 9842 §4, §5).
//!
//! Both are a fixed head, which names the dictionary by its SHA-256, and a stream of the ordinary coding that may look back
//! into the dictionary as if it stood before the body. A delta that a client cannot undo does not degrade: it breaks the
//! page. So each is undone here and compared before anybody gets it ([`make`] does both).
//!
//! Bodies are whole and bounded by the caller; so is the memory: about ten times dictionary and body together at the
//! strongest levels.

use std::io;

use brotli::enc::BrotliEncoderParams;
use brotli::{BrotliCompressCustomIoCustomDict, IoReaderWrapper, IoWriterWrapper};
use brotli_decompressor::{BrotliDecompressStreamWithDictionary, BrotliResult, BrotliState, StandardAlloc};
use zstd_safe::{CCtx, CParameter, DCtx};

use crate::policy::dictionary::DeltaCoding;

/// What a `dcz` stream begins with: the head of a skippable frame that holds the digest (RFC 9842 §5).
const DCZ_MAGIC: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0];
/// What a `dcb` stream begins with (RFC 9842 §4).
const DCB_MAGIC: [u8; 4] = [0xff, 0x44, 0x43, 0x42];
/// Largest windows, as powers of two, that every client of the coding takes: 8 MiB and 16 MiB.
const DCZ_WINDOW_LOG_MAX: u32 = 23;
const DCB_WINDOW_LOG_MAX: u32 = 24;
/// Smallest windows of the formats' encoders.
const WINDOW_LOG_MIN: u32 = 16;
/// Bytes handed over between brotli and its ends in one step.
const STEP: usize = 16 * 1024;

/// A dictionary: its bytes, and the SHA-256 of them.
#[derive(Debug, Clone, Copy)]
pub struct Dictionary<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// Of `bytes`.
    pub digest: &'a [u8; 32],
}

/// Why there is no delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Dictionary and body do not fit the window that every client has.
    TooLarge,
    /// The encoder failed.
    Encoder,
    /// What was made does not give the body back. Should never be seen.
    Unproven,
}

impl Refusal {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Encoder => "encoder",
            Self::Unproven => "unproven",
        }
    }
}

/// `body` as what differs from `dictionary`, proven to give it back. `level` is one of the two of the coding: brotli's
/// encoder is not to be trusted with a dictionary at its lowest ones. Cost: at the fast level some milliseconds a megabyte,
/// at the strongest about a second.
///
/// # Errors
/// Why there is none.
pub fn make(coding: DeltaCoding, level: u8, dictionary: Dictionary<'_>, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let delta = match coding {
        DeltaCoding::Dcz => encode_dcz(level, dictionary, body)?,
        DeltaCoding::Dcb => encode_dcb(level, dictionary, body)?,
    };
    if gives_back(coding, dictionary, &delta, body) { Ok(delta) } else { Err(Refusal::Unproven) }
}

/// Whether a client that has `dictionary` gets `body` out of `delta`.
#[must_use]
pub fn gives_back(coding: DeltaCoding, dictionary: Dictionary<'_>, delta: &[u8], body: &[u8]) -> bool {
    let magic = match coding {
        DeltaCoding::Dcz => &DCZ_MAGIC[..],
        DeltaCoding::Dcb => &DCB_MAGIC[..],
    };
    let stream = delta.strip_prefix(magic).and_then(|rest| rest.strip_prefix(&dictionary.digest[..]));
    let Some(stream) = stream else { return false };
    match coding {
        DeltaCoding::Dcz => {
            let mut decoder = DCtx::create();
            // One byte more than it should give: too much shows as well as too little.
            let mut plain = Vec::with_capacity(body.len() + 1);
            let decoded = decoder.ref_prefix(dictionary.bytes).and_then(|_| decoder.decompress(&mut plain, stream));
            decoded.is_ok() && plain == body
        }
        DeltaCoding::Dcb => gives_back_dcb(dictionary.bytes, stream, body),
    }
}

/// Compares as it decodes: what a broken stream would swell to is never held.
fn gives_back_dcb(dictionary: &[u8], stream: &[u8], body: &[u8]) -> bool {
    let alloc = StandardAlloc::default;
    // Strict: windows beyond RFC 7932 are refused, as clients do.
    let mut decoder = BrotliState::new_strict(alloc(), alloc(), alloc());
    if !dictionary.is_empty() && !decoder.attach_external_dictionary(dictionary.len()) {
        return false;
    }
    let (mut left, mut read, mut total) = (stream.len(), 0, 0);
    let mut expected = body;
    loop {
        let mut room = [0; STEP];
        let (mut spare, mut written) = (STEP, 0);
        let result = BrotliDecompressStreamWithDictionary(
            &mut left,
            &mut read,
            stream,
            &mut spare,
            &mut written,
            &mut room,
            &mut total,
            dictionary,
            &mut decoder,
        );
        let Some(rest) = room.get(..written).and_then(|plain| expected.strip_prefix(plain)) else { return false };
        expected = rest;
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess => return left == 0 && expected.is_empty(),
            BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => return false,
        }
    }
}

/// The smallest window that reaches from the end of the body to the beginning of the dictionary.
fn window_log(dictionary: &[u8], body: &[u8], max: u32) -> Result<u32, Refusal> {
    // Brotli keeps 16 bytes of its window to itself.
    let span = dictionary.len() + body.len() + 16;
    let log = span.next_power_of_two().trailing_zeros().max(WINDOW_LOG_MIN);
    if log > max { Err(Refusal::TooLarge) } else { Ok(log) }
}

fn encode_dcz(level: u8, dictionary: Dictionary<'_>, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let window_log = window_log(dictionary.bytes, body, DCZ_WINDOW_LOG_MAX)?;
    let head = [&DCZ_MAGIC[..], dictionary.digest].concat();
    let mut delta = Vec::with_capacity(head.len() + zstd_safe::compress_bound(body.len()));
    let mut encoder = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(level.into()),
        CParameter::WindowLog(window_log),
        // Versions of a file share long runs, far apart: found by this at any level, and sooner than by chains.
        CParameter::EnableLongDistanceMatching(true),
    ];
    let coded = parameters
        .into_iter()
        .try_for_each(|parameter| encoder.set_parameter(parameter).map(|_| ()))
        .and_then(|()| encoder.ref_prefix(dictionary.bytes))
        .and_then(|_| encoder.compress2(&mut delta, body));
    coded.map_err(|_| Refusal::Encoder)?;
    delta.splice(..0, head);
    Ok(delta)
}

fn encode_dcb(level: u8, dictionary: Dictionary<'_>, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let window_log = window_log(dictionary.bytes, body, DCB_WINDOW_LOG_MAX)?;
    let params = BrotliEncoderParams {
        quality: level.into(),
        lgwin: i32::try_from(window_log).unwrap_or_default(),
        size_hint: body.len(),
        ..BrotliEncoderParams::default()
    };
    let mut delta = [&DCB_MAGIC[..], dictionary.digest].concat();
    let (mut input, mut output) = ([0; STEP], [0; STEP]);
    let mut source = body;
    BrotliCompressCustomIoCustomDict(
        &mut IoReaderWrapper(&mut source),
        &mut IoWriterWrapper(&mut delta),
        &mut input,
        &mut output,
        &params,
        StandardAlloc::default(),
        &mut |_, _, _, _| (),
        dictionary.bytes,
        io::ErrorKind::UnexpectedEof.into(),
    )
    .map_err(|_: io::Error| Refusal::Encoder)?;
    Ok(delta)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use proptest::prelude::*;

    use super::*;

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
    }

    fn script(seed: u32, lines: u32) -> Vec<u8> {
        let line = |n: u32| format!("function f{n}() {{ return {}; }}\n", (n ^ seed).wrapping_mul(2_654_435_761));
        (0..lines).flat_map(|n| line(n).into_bytes()).collect()
    }

    fn changed(old: &[u8]) -> Vec<u8> {
        let mut new = old.to_vec();
        let middle = new.len() / 2;
        new.splice(middle..middle, *b"console.log('released');\n");
        new
    }

    #[test]
    fn what_differs_is_small_and_gives_the_body_back() {
        let old = script(1, 5000);
        let (new, digest) = (changed(&old), sha256(&old));
        let dictionary = Dictionary { bytes: &old, digest: &digest };
        for coding in DeltaCoding::ALL {
            for level in [coding.fast_level(), coding.strong_level()] {
                let delta = make(coding, level, dictionary, &new).expect("a delta");
                assert!(delta.len() < 200, "{coding:?} {level}: {}", delta.len());
            }
        }
    }

    #[test]
    fn the_head_is_that_of_the_rfc() {
        let (old, new) = (b"a dictionary of some words", b"some words of a dictionary");
        let digest = sha256(old);
        let dictionary = Dictionary { bytes: old, digest: &digest };
        let head = |coding: DeltaCoding| make(coding, coding.fast_level(), dictionary, new).expect("a delta");
        let dcb = head(DeltaCoding::Dcb);
        assert_eq!(dcb[..4], [0xff, b'D', b'C', b'B']);
        assert_eq!(dcb[4..36], digest);
        let dcz = head(DeltaCoding::Dcz);
        // A skippable frame of 32 bytes: decoders without this coding pass over it.
        assert_eq!(dcz[..8], [0x5e, 0x2a, 0x4d, 0x18, 32, 0, 0, 0]);
        assert_eq!(dcz[8..40], digest);
        assert_eq!(dcz[40..44], [0x28, 0xb5, 0x2f, 0xfd], "then a frame of zstd");
    }

    #[test]
    fn what_is_not_exact_is_refused() {
        let old = script(1, 500);
        let (new, digest, other) = (changed(&old), sha256(&old), script(2, 500));
        let dictionary = Dictionary { bytes: &old, digest: &digest };
        let foreign = Dictionary { bytes: &other, digest: &digest };
        for coding in DeltaCoding::ALL {
            let delta = make(coding, coding.fast_level(), dictionary, &new).expect("a delta");
            let gives = |dictionary, delta: &[u8], body: &[u8]| gives_back(coding, dictionary, delta, body);
            assert!(gives(dictionary, &delta, &new));
            assert!(!gives(foreign, &delta, &new), "{coding:?}: another dictionary");
            assert!(!gives(dictionary, &delta, &old), "{coding:?}: another body");
            assert!(!gives(dictionary, &delta, &new[..new.len() - 1]), "{coding:?}: too much");
            assert!(!gives(dictionary, &delta, &[&new[..], b"x"].concat()), "{coding:?}: too little");
            assert!(!gives(dictionary, &delta[..delta.len() - 1], &new), "{coding:?}: cut off");
            assert!(!gives(dictionary, &[&delta[..], b"x"].concat(), &new), "{coding:?}: more behind it");
            for place in [0, 20, delta.len() - 1] {
                let mut broken = delta.clone();
                broken[place] ^= 1;
                assert!(!gives(dictionary, &broken, &new), "{coding:?}: a bit of byte {place}");
            }
        }
    }

    #[test]
    fn windows_reach_as_far_as_every_client_can() {
        for (dictionary, body, max, expected) in [
            (10, 10, 23, Ok(16)),
            (1 << 20, 1 << 20, 23, Ok(22)),
            (4 << 20, (4 << 20) - 16, 23, Ok(23)),
            (4 << 20, 4 << 20, 23, Err(Refusal::TooLarge)),
            (4 << 20, 4 << 20, 24, Ok(24)),
        ] {
            let zeros = vec![0; dictionary.max(body)];
            assert_eq!(window_log(&zeros[..dictionary], &zeros[..body], max), expected, "{dictionary} {body}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_body_comes_back_by_any_dictionary(
            dictionary in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..5000),
            other in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..3000),
            from in 0..5000_usize,
            strong: bool,
        ) {
            // Of noise like this brotli's encoder sometimes makes what the proof refuses: it is asked about scripts below.
            let coding = DeltaCoding::Dcz;
            let level = if strong { coding.strong_level() } else { coding.fast_level() };
            let body = [&dictionary[from.min(dictionary.len())..], &other].concat();
            let digest = sha256(&dictionary);
            let made = make(coding, level, Dictionary { bytes: &dictionary, digest: &digest }, &body);
            prop_assert!(made.is_ok(), "{made:?}");
        }

        #[test]
        fn edited_scripts_come_back(
            seed: u32,
            edits in proptest::collection::vec((0..9000_usize, 0..200_usize, "[a-z(){};= ]{0,120}"), 0..12),
            coding in proptest::sample::select(&DeltaCoding::ALL[..]),
            strong: bool,
        ) {
            let level = if strong { coding.strong_level() } else { coding.fast_level() };
            let old = script(seed, 200);
            let mut new = old.clone();
            for (at, length, text) in edits {
                let at = at.min(new.len());
                let end = (at + length).min(new.len());
                new.splice(at..end, text.into_bytes());
            }
            let digest = sha256(&old);
            let made = make(coding, level, Dictionary { bytes: &old, digest: &digest }, &new);
            prop_assert!(made.is_ok(), "{made:?}");
        }
    }
}
