//! What a request is answered with, in the shapes of `rest-api.md` §1.2.

use std::borrow::Cow;

use primacy_net::Bytes;
use serde_json::Value;

/// An answer, before the server's own headers are put around it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// S: a status line only.
    Status(u16),
    /// J: a JSON document.
    Json {
        /// Status code.
        code: u16,
        /// The document.
        document: Value,
        /// Headers of this answer.
        headers: Headers,
    },
    /// T: a bare text.
    Text {
        /// Status code.
        code: u16,
        /// The text.
        text: Cow<'static, str>,
        /// `Content-Type`.
        content_type: &'static str,
        /// Headers of this answer.
        headers: Headers,
    },
    /// J or T with code 200: what was made before.
    Made {
        /// The document or text.
        text: Bytes,
        /// `Content-Type`.
        content_type: &'static str,
        /// Headers of this answer.
        headers: Headers,
    },
    /// H: a page that explains an error.
    Page(ErrorPage),
    /// D: nothing at all, the connection is closed; why, for the log.
    Dropped(String),
}

/// Headers of one answer, beside those that every answer has.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// The errors that are answered with a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ErrorPage {
    /// 400: the body cannot be used.
    BadRequest,
    /// 409: somebody else's write came first.
    Conflict,
    /// 411: a body is needed.
    LengthRequired,
    /// 413: the body is larger than anything that this API takes.
    TooLarge,
    /// 501: nothing answers this method here. patronictl looks for the sentence.
    UnsupportedMethod(String),
    /// 502: what the store holds cannot be used.
    BadGateway,
    /// 503: there is no configuration to change.
    Unavailable,
}

impl Answer {
    /// A text with the usual content type.
    pub(crate) fn text(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Answer::Text {
            code,
            text: text.into(),
            content_type: "text/html",
            headers: Headers::new(),
        }
    }

    /// A document.
    pub(crate) fn json(code: u16, document: impl Into<Value>) -> Self {
        Answer::Json {
            code,
            document: document.into(),
            headers: Headers::new(),
        }
    }

    /// The status code; 0 when the connection is dropped.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Answer::Status(code) | Answer::Json { code, .. } | Answer::Text { code, .. } => *code,
            Answer::Made { .. } => 200,
            Answer::Page(page) => page.code(),
            Answer::Dropped(_) => 0,
        }
    }

    /// Adds a header, where the shape has any.
    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Answer::Json { headers, .. }
        | Answer::Text { headers, .. }
        | Answer::Made { headers, .. } = &mut self
        {
            headers.push((name, value.into()));
        }
        self
    }
}

impl ErrorPage {
    /// The status code.
    pub(crate) fn code(&self) -> u16 {
        match self {
            ErrorPage::BadRequest => 400,
            ErrorPage::Conflict => 409,
            ErrorPage::LengthRequired => 411,
            ErrorPage::TooLarge => 413,
            ErrorPage::UnsupportedMethod(_) => 501,
            ErrorPage::BadGateway => 502,
            ErrorPage::Unavailable => 503,
        }
    }

    /// The reason, in the status line and on the page.
    pub(crate) fn reason(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            ErrorPage::BadRequest => "Bad Request",
            ErrorPage::Conflict => "Conflict",
            ErrorPage::LengthRequired => "Length Required",
            ErrorPage::TooLarge => "Request Entity Too Large",
            ErrorPage::UnsupportedMethod(method) => {
                return Cow::Owned(format!("Unsupported method ('{method}')"));
            }
            ErrorPage::BadGateway => "Bad Gateway",
            ErrorPage::Unavailable => "Service Unavailable",
        })
    }

    fn explanation(&self) -> &'static str {
        match self {
            ErrorPage::BadRequest => "Bad request syntax or unsupported method",
            ErrorPage::Conflict => "Request conflict",
            ErrorPage::LengthRequired => "Client must specify Content-Length",
            ErrorPage::TooLarge => "Entity is too large",
            ErrorPage::UnsupportedMethod(_) => "Server does not support this operation",
            ErrorPage::BadGateway => "Invalid responses from another server/proxy",
            ErrorPage::Unavailable => "The server cannot process the request due to a high load",
        }
    }

    /// The page.
    pub(crate) fn html(&self) -> String {
        let (code, explanation) = (self.code(), self.explanation());
        let reason = escape(&self.reason());
        format!(
            "<!DOCTYPE HTML>\n\
             <html lang=\"en\">\n\
             \x20   <head>\n\
             \x20       <meta charset=\"utf-8\">\n\
             \x20       <title>Error response</title>\n\
             \x20   </head>\n\
             \x20   <body>\n\
             \x20       <h1>Error response</h1>\n\
             \x20       <p>Error code: {code}</p>\n\
             \x20       <p>Message: {reason}.</p>\n\
             \x20       <p>Error code explanation: {code} - {explanation}.</p>\n\
             \x20   </body>\n\
             </html>\n"
        )
    }
}

/// The method is the client's text; a quotation mark stays as it is, as in the original.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rest-api.md` §13: the page of a POST nowhere has 357 bytes, and patronictl finds its sentence.
    #[test]
    fn page_is_the_originals() {
        let page = ErrorPage::UnsupportedMethod("POST".into());
        assert_eq!(page.html().len(), 357);
        assert!(
            page.html()
                .contains("<p>Message: Unsupported method ('POST').</p>\n")
        );
        assert!(
            page.html()
                .contains("501 - Server does not support this operation.</p>")
        );
    }

    /// `rest-api.md` §1.2.
    #[test]
    fn pages_say_what_went_wrong() {
        for (page, code, reason, explanation) in [
            (ErrorPage::Conflict, 409, "Conflict", "Request conflict"),
            (
                ErrorPage::BadGateway,
                502,
                "Bad Gateway",
                "Invalid responses from another server/proxy",
            ),
            (
                ErrorPage::Unavailable,
                503,
                "Service Unavailable",
                "The server cannot process the request due to a high load",
            ),
        ] {
            let html = page.html();
            for line in [
                format!("<p>Error code: {code}</p>"),
                format!("<p>Message: {reason}.</p>"),
                format!("<p>Error code explanation: {code} - {explanation}.</p>"),
            ] {
                assert!(html.contains(&line), "{line} in {html}");
            }
        }
    }

    #[test]
    fn page_does_not_carry_markup_of_the_client() {
        let page = ErrorPage::UnsupportedMethod("<b>&".into());
        assert!(page.html().contains("('&lt;b&gt;&amp;')"));
    }
}
