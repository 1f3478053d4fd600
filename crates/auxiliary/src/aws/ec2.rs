//! The two calls of EC2's query API that tags take, signed (Signature Version 4).

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use primacy_net::{
    Bytes, ClientOptions, HeaderMap, HeaderName, HeaderValue, HttpClient, HttpError, Method, Roots,
    StatusCode, TlsClientOptions, header,
};
use roxmltree::{Document, Node};
use tokio::time::Instant;

/// The version of the API that is spoken, which EC2 keeps.
const VERSION: &str = "2016-11-15";
/// EC2 answers in less than a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Of a body, signed as it is sent.
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Why EC2 did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ec2Error {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("EC2 refuses {action} with status {status}: {reason}")]
    Refused {
        action: &'static str,
        status: StatusCode,
        reason: String,
    },
    #[error("EC2's answer to {action} is not understood")]
    Unintelligible { action: &'static str },
    /// What the signing library says of it might tell of the credentials.
    #[error(
        "{action} cannot be signed: look at the credentials and the endpoint for characters that do not belong there"
    )]
    NotSigned { action: &'static str },
}

/// EC2 in one region.
pub(super) struct Ec2 {
    client: HttpClient,
    endpoint: String,
    region: String,
}

impl Ec2 {
    /// Where the environment has it, else where AWS does.
    pub(super) fn of(variable: &dyn Fn(&str) -> Option<String>, region: &str) -> Self {
        let roots = variable("AWS_CA_BUNDLE")
            .map_or(Roots::System, |path| Roots::File(PathBuf::from(path)));
        let endpoint = variable("AWS_ENDPOINT_URL_EC2")
            .or_else(|| variable("AWS_ENDPOINT_URL"))
            .unwrap_or_else(|| format!("https://ec2.{region}.{}", domain(region)));
        Ec2 {
            client: HttpClient::new(ClientOptions {
                tls: TlsClientOptions {
                    roots,
                    ..TlsClientOptions::default()
                },
                ..ClientOptions::default()
            }),
            endpoint: format!("{}/", endpoint.trim_end_matches('/')),
            region: region.to_owned(),
        }
    }

    /// The volumes that are attached to an instance.
    pub(super) async fn volumes(
        &self,
        credentials: &Credentials,
        instance: &str,
    ) -> Result<Vec<String>, Ec2Error> {
        let action = "DescribeVolumes";
        let mut volumes = Vec::new();
        let mut page = None;
        loop {
            let mut parameters = vec![
                (
                    "Filter.1.Name".to_owned(),
                    "attachment.instance-id".to_owned(),
                ),
                ("Filter.1.Value.1".to_owned(), instance.to_owned()),
            ];
            parameters.extend(page.map(|token| ("NextToken".to_owned(), token)));
            let answer = self.call(action, &parameters, credentials).await?;
            page =
                read_volumes(&answer, &mut volumes).ok_or(Ec2Error::Unintelligible { action })?;
            if page.is_none() {
                return Ok(volumes);
            }
        }
    }

    /// Sets tags, each a key and a value, beside those that are there.
    pub(super) async fn tag(
        &self,
        credentials: &Credentials,
        resources: &[String],
        tags: &[(&str, &str)],
    ) -> Result<(), Ec2Error> {
        let resources = (1..)
            .zip(resources)
            .map(|(number, resource)| (format!("ResourceId.{number}"), resource.clone()));
        let tags = (1..).zip(tags).flat_map(|(number, (key, value))| {
            [
                (format!("Tag.{number}.Key"), (*key).to_owned()),
                (format!("Tag.{number}.Value"), (*value).to_owned()),
            ]
        });
        let parameters: Vec<_> = resources.chain(tags).collect();
        self.call("CreateTags", &parameters, credentials).await?;
        Ok(())
    }

    async fn call(
        &self,
        action: &'static str,
        parameters: &[(String, String)],
        credentials: &Credentials,
    ) -> Result<String, Ec2Error> {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", VERSION)
            .extend_pairs(parameters)
            .finish();
        let headers = self
            .signed(&body, credentials, SystemTime::now())
            .ok_or(Ec2Error::NotSigned { action })?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let asked = self.client.request(
            Method::POST,
            &self.endpoint,
            headers,
            Bytes::from(body),
            deadline,
        );
        let answer = asked.await?;
        let text = String::from_utf8_lossy(&answer.body);
        if answer.status != StatusCode::OK {
            return Err(Ec2Error::Refused {
                action,
                status: answer.status,
                reason: read_refusal(&text).unwrap_or_else(|| "it does not say why".to_owned()),
            });
        }
        Ok(text.into_owned())
    }

    /// The headers of a request; none if they cannot be made.
    fn signed(&self, body: &str, credentials: &Credentials, now: SystemTime) -> Option<HeaderMap> {
        let identity = credentials.clone().into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ec2")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .ok()?
            .into();
        let content_type = [("content-type", FORM)];
        let body = SignableBody::Bytes(body.as_bytes());
        let request =
            SignableRequest::new("POST", &self.endpoint, content_type.into_iter(), body).ok()?;
        let (instructions, _) = sign(request, &parameters).ok()?.into_parts();
        let mut headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(FORM))]);
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
        }
        Some(headers)
    }
}

/// Of the hosts of a region, by the partition that it belongs to.
fn domain(region: &str) -> &'static str {
    match region.split_once('-') {
        Some(("cn", _)) => "amazonaws.com.cn",
        Some(("eusc", _)) => "amazonaws.eu",
        Some(("us", rest)) if rest.starts_with("iso-") => "c2s.ic.gov",
        Some(("us", rest)) if rest.starts_with("isob-") => "sc2s.sgov.gov",
        Some(("us", rest)) if rest.starts_with("isof-") => "csp.hci.ic.gov",
        Some(("eu", rest)) if rest.starts_with("isoe-") => "cloud.adc-e.uk",
        _ => "amazonaws.com",
    }
}

/// Adds the volumes of an answer; gives the token of the next page, if there is one, or nothing if this is no answer.
#[expect(
    clippy::option_option,
    reason = "no answer is something else than no next page"
)]
fn read_volumes(answer: &str, volumes: &mut Vec<String>) -> Option<Option<String>> {
    let document = Document::parse(answer).ok()?;
    let root = document.root_element();
    let items = child(root, "volumeSet")?.children();
    for item in items.filter(|node| node.tag_name().name() == "item") {
        volumes.push(child(item, "volumeId")?.text()?.to_owned());
    }
    let next = child(root, "nextToken").and_then(|token| token.text());
    Some(next.map(str::to_owned))
}

/// Code and message of a refusal, in one line.
fn read_refusal(answer: &str) -> Option<String> {
    let document = Document::parse(answer).ok()?;
    let error = document
        .descendants()
        .find(|node| node.tag_name().name() == "Error")?;
    let text = |name| child(error, name).and_then(|node| node.text());
    let reason = format!("{}: {}", text("Code")?, text("Message").unwrap_or_default());
    Some(reason.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children()
        .find(|child| child.tag_name().name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_page_by_page() {
        let answer = |rest: &str| {
            format!(
                "<DescribeVolumesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><volumeSet>\
                 <item><volumeId>vol-1</volumeId><attachmentSet><item><volumeId>vol-1</volumeId></item></attachmentSet>\
                 </item><item><volumeId>vol-2</volumeId></item></volumeSet>{rest}</DescribeVolumesResponse>"
            )
        };
        let mut volumes = Vec::new();
        let next = read_volumes(&answer("<nextToken>more</nextToken>"), &mut volumes);
        assert_eq!(next, Some(Some("more".to_owned())));
        assert_eq!(volumes, ["vol-1", "vol-2"]);
        assert_eq!(
            read_volumes(&answer("<nextToken/>"), &mut volumes),
            Some(None)
        );
        assert_eq!(read_volumes(&answer(""), &mut volumes), Some(None));
        for spoiled in ["", "<x/>", "<x><volumeSet><item/></volumeSet></x>"] {
            assert_eq!(read_volumes(spoiled, &mut volumes), None);
        }
    }

    #[test]
    fn a_refusal_is_told_in_one_line() {
        let answer = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>RequestLimitExceeded</Code>\
                      <Message>Request\n limit exceeded.</Message></Error></Errors></Response>";
        let reason = read_refusal(answer).unwrap_or_default();
        assert_eq!(reason, "RequestLimitExceeded: Request limit exceeded.");
        assert_eq!(read_refusal("<html>Bad gateway"), None);
    }

    #[test]
    fn a_region_has_its_host() {
        for (region, endpoint) in [
            ("eu-central-1", "https://ec2.eu-central-1.amazonaws.com/"),
            ("us-gov-west-1", "https://ec2.us-gov-west-1.amazonaws.com/"),
            ("cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn/"),
            (
                "us-isob-east-1",
                "https://ec2.us-isob-east-1.sc2s.sgov.gov/",
            ),
        ] {
            assert_eq!(Ec2::of(&|_| None, region).endpoint, endpoint);
        }
        let set = |name: &str| {
            let general = name == "AWS_ENDPOINT_URL";
            general.then(|| "https://all.example".to_owned())
        };
        assert_eq!(
            Ec2::of(&set, "eu-central-1").endpoint,
            "https://all.example/"
        );
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn answers_of_ec2() {
        let volumes = "<?xml version=\"1.0\"?><a xmlns=\"http://b/\"><volumeSet><item><volumeId>vol-1</volumeId></item>\
                       </volumeSet><nextToken>more</nextToken></a>";
        let refusal = "<Response><Errors><Error><Code>C</Code><Message>M &lt;&#65;&gt;<![CDATA[m]]></Message></Error>\
                       </Errors></Response>";
        primacy_fuzz::text(&[volumes, refusal], |input| {
            read_refusal(input).is_some() | read_volumes(input, &mut Vec::new()).is_some()
        });
    }
}
