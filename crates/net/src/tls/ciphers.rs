//! Which cipher suites a server offers, in OpenSSL's words.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite;

use super::TlsError;

/// A choice of cipher suites, the preferred one first.
#[derive(Clone, Debug)]
pub struct Ciphers {
    suites: Vec<SupportedCipherSuite>,
    unknown: Vec<String>,
}

/// What there is besides is weak or has no forward secrecy, and is not in the TLS library.
const TLS13: [(&str, SupportedCipherSuite); 3] = [
    (
        "TLS_AES_256_GCM_SHA384",
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// The suites of TLS 1.2: OpenSSL's name, the standard's one, and the words that mean it among others.
const TLS12: [(&str, &str, &[&str], SupportedCipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        &["aECDSA", "ECDSA", "AES", "AES256", "AESGCM"],
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        &["aRSA", "AES", "AES256", "AESGCM"],
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        &["aECDSA", "ECDSA", "CHACHA20"],
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        &["aRSA", "CHACHA20"],
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        &["aECDSA", "ECDSA", "AES", "AES128", "AESGCM"],
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        &["aRSA", "AES", "AES128", "AESGCM"],
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
];

/// Words that mean every suite of TLS 1.2 that there is here.
const ALL: [&str; 9] = [
    "ALL", "DEFAULT", "HIGH", "TLSv1.2", "ECDHE", "kECDHE", "EECDH", "kEECDH", "ECDH",
];

impl Ciphers {
    /// Reads OpenSSL's cipher list: names and classes between `:`, `,` or blanks, the words of a class joined by `+`;
    /// after `!` or `-` they are taken away, for good or for now, after `+` moved to the end. Of TLS 1.3 all suites are
    /// offered unless some are named, since OpenSSL's lists do not speak of them.
    ///
    /// # Errors
    /// [`TlsError::Settings`]: nothing in it is a suite that can be offered.
    pub fn parse(list: &str) -> Result<Self, TlsError> {
        let mut tls13 = Vec::new();
        let mut tls12 = Vec::new();
        let mut banned = Vec::new();
        let mut unknown = Vec::new();
        for word in list
            .split([':', ',', ' ', ';'])
            .filter(|word| !word.is_empty())
        {
            let (operator, class) = match word.split_at_checked(1) {
                Some((operator @ ("!" | "-" | "+"), class)) => (operator, class),
                _ => ("", word),
            };
            if let Some((_, suite)) = TLS13.iter().find(|(name, _)| *name == class) {
                change(&mut tls13, &mut banned, operator, &[*suite]);
                continue;
            }
            let meant: Vec<_> = TLS12
                .iter()
                .filter(|(name, standard, words, _)| {
                    let means = |part| words.contains(&part) || ALL.contains(&part);
                    *name == class || *standard == class || class.split('+').all(means)
                })
                .map(|(.., suite)| *suite)
                .collect();
            if meant.is_empty() && operator.is_empty() {
                unknown.push(word.to_owned());
            }
            change(&mut tls12, &mut banned, operator, &meant);
        }
        if tls13.is_empty() && tls12.is_empty() {
            let names: Vec<_> = TLS13.iter().map(|(name, _)| *name).collect();
            let names = names
                .into_iter()
                .chain(TLS12.iter().map(|(name, ..)| *name));
            return Err(TlsError::Settings(format!(
                "no cipher suite of {list:?} can be offered; there are {}",
                names.collect::<Vec<_>>().join(", ")
            )));
        }
        if tls13.is_empty() {
            tls13 = TLS13.iter().map(|(_, suite)| *suite).collect();
            tls13.retain(|suite| !banned.contains(suite));
        }
        tls13.extend(tls12);
        Ok(Ciphers {
            suites: tls13,
            unknown,
        })
    }

    /// What is on the list and offered by nobody here.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    pub(super) fn suites(&self) -> &[SupportedCipherSuite] {
        &self.suites
    }
}

/// Does to a list what an operator says.
fn change(
    list: &mut Vec<SupportedCipherSuite>,
    banned: &mut Vec<SupportedCipherSuite>,
    operator: &str,
    suites: &[SupportedCipherSuite],
) {
    for suite in suites {
        let place = list.iter().position(|listed| listed == suite);
        match (operator, place) {
            ("", None) if !banned.contains(suite) => list.push(*suite),
            ("!" | "-" | "+", Some(place)) => {
                list.remove(place);
            }
            _ => {}
        }
        match (operator, place) {
            ("!", _) => banned.push(*suite),
            ("+", Some(_)) => list.push(*suite),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CipherSuite;

    /// The suites in their order, `-` for what is left of TLS 1.3 where none is named.
    fn chosen(list: &str) -> String {
        let Ok(ciphers) = Ciphers::parse(list) else {
            return "none".into();
        };
        let short = |suite: &SupportedCipherSuite| match suite.suite() {
            CipherSuite::TLS13_AES_256_GCM_SHA384 => "A",
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "B",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "C",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "e256",
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "r256",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "eC",
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "rC",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "e128",
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "r128",
            other => panic!("{other:?}"),
        };
        let names: Vec<_> = ciphers.suites().iter().map(short).collect();
        let text = names.join(" ").replace("A B C", "-");
        match ciphers.unknown() {
            [] => text,
            unknown => format!("{text} without {}", unknown.join(" ")),
        }
    }

    #[test]
    fn lists_of_openssl_are_read() {
        let cases = [
            ("ECDHE-RSA-AES256-GCM-SHA384", "- r256"),
            (
                "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
                "- r128 e256",
            ),
            // The example of Patroni's documentation.
            (
                "ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:\
                 DHE-RSA-AES128-GCM-SHA256:!SSLv1:!SSLv2:!SSLv3:!TLSv1:!TLSv1.1",
                "- r256 r128 without DHE-RSA-AES256-GCM-SHA384 DHE-RSA-AES128-GCM-SHA256",
            ),
            ("HIGH:!aNULL:!MD5", "- e256 r256 eC rC e128 r128"),
            ("DEFAULT", "- e256 r256 eC rC e128 r128"),
            ("ECDHE+AESGCM:ECDHE+CHACHA20", "- e256 r256 e128 r128 eC rC"),
            ("EECDH+aRSA+AES256, EECDH+CHACHA20", "- r256 eC rC"),
            ("ALL:!aECDSA:!CHACHA20", "- r256 r128"),
            ("ALL:!AES128:AES128", "- e256 r256 eC rC"),
            (
                "ALL:-AES128:ECDHE-RSA-AES128-GCM-SHA256",
                "- e256 r256 eC rC r128",
            ),
            ("ALL:+AES256", "- eC rC e128 r128 e256 r256"),
            ("AES256:AES256 AES256", "- e256 r256"),
            ("TLS_AES_256_GCM_SHA384", "A"),
            (
                "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384:ECDHE-RSA-CHACHA20-POLY1305",
                "C A rC",
            ),
            (
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:!TLS_AES_128_GCM_SHA256",
                "A C r256",
            ),
            (
                "ECDHE-RSA-AES256-GCM-SHA384:@SECLEVEL=2",
                "- r256 without @SECLEVEL=2",
            ),
            ("DHE-RSA-AES256-GCM-SHA384:AES256-SHA", "none"),
            ("ecdhe-rsa-aes256-gcm-sha384", "none"),
            ("ALL:!TLSv1.2", "none"),
            ("!aNULL", "none"),
            ("AESGCM+SHA1", "none"),
            ("", "none"),
        ];
        for (list, expected) in cases {
            assert_eq!(chosen(list), expected, "{list}");
        }
        let error = Ciphers::parse("RC4-SHA").unwrap_err().to_string();
        assert!(
            error.starts_with(
                "no cipher suite of \"RC4-SHA\" can be offered; there are TLS_AES_256_GCM_SHA384, "
            ),
            "{error}"
        );
    }
}

/// What operators write, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn cipher_lists() {
        let samples = [
            "ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES256-GCM-SHA384:!SSLv3",
            "ALL:-AES128:+ECDHE+aRSA:@STRENGTH",
            "TLS_AES_256_GCM_SHA384,TLS_CHACHA20_POLY1305_SHA256 EECDH+CHACHA20:!ECDSA",
        ];
        primacy_fuzz::text(&samples, |input| {
            let Ok(ciphers) = Ciphers::parse(input) else {
                return false;
            };
            let suites = ciphers.suites();
            assert!(!suites.is_empty());
            for (index, suite) in suites.iter().enumerate() {
                assert!(!suites[..index].contains(suite), "{suite:?} twice");
            }
            true
        });
    }
}
