//! `template`: answers made from the question.

use domain::base::iana::Rtype;
use regex::Regex;

use super::{
    Body, Chase, Refused, Request, Response, Stage, Step, bearing_of, record_text,
    template_text::{Data, Template},
};
use crate::{
    bearing::Bearing,
    config::{Fallthrough, TemplateConfig, ZoneName, zone_of},
    name::{DnsName, Rr, text},
    names::Names,
    wire::Rcode,
};

/// One template, ready to be filled.
#[derive(Debug)]
struct Rule {
    zones: Vec<ZoneName>,
    kind: Option<Rtype>,
    matches: Vec<Regex>,
    answer: Vec<Template>,
    additional: Vec<Template>,
    authority: Vec<Template>,
    rcode: u16,
    error: Option<(u16, String)>,
    fallthrough: Fallthrough,
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Templates(Vec<Rule>);

impl Templates {
    /// The zones of every template are filled in.
    pub(crate) fn new(configs: &[TemplateConfig]) -> Result<Self, String> {
        configs.iter().map(Rule::new).collect::<Result<_, _>>().map(Self)
    }
}

impl Rule {
    fn new(config: &TemplateConfig) -> Result<Self, String> {
        let templates = |texts: &[String]| {
            texts.iter().map(|text| Template::read(text)).collect::<Result<Vec<_>, _>>()
        };
        let mut matches: Vec<Regex> =
            config.matches.iter().map(|pattern| pattern.0.clone()).collect();
        if matches.is_empty() {
            matches.push(Regex::new(".*").map_err(|error| error.to_string())?);
        }
        Ok(Self {
            zones: config.zones.clone(),
            kind: config.kind.map(|kind| kind.0).filter(|kind| *kind != Rtype::ANY),
            matches,
            answer: templates(&config.answer)?,
            additional: templates(&config.additional)?,
            authority: templates(&config.authority)?,
            rcode: config.rcode.0,
            error: config.ederror.clone(),
            fallthrough: config.fallthrough.clone(),
        })
    }
}

impl Stage for Templates {
    fn name(&self) -> &'static str {
        "template"
    }

    fn bearing(&self, apex: &DnsName) -> Bearing {
        bearing_of(self.0.iter().flat_map(|rule| &rule.zones), apex)
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let name = request.name_text();
        let asked = request.question.kind;
        for rule in &self.0 {
            let Some(zone) = zone_of(&rule.zones, &request.question.name) else { continue };
            let other = |kind: Rtype| asked != Rtype::ANY && asked != kind;
            if rule.kind.is_some_and(other) {
                continue;
            }
            let found = rule.matches.iter().find_map(|regex| Some((regex, regex.captures(&name)?)));
            let Some((regex, groups)) = found else {
                if rule.fallthrough.passes(&request.question.name) {
                    continue;
                }
                return failed("no pattern of a template matches, and it does not fall through");
            };
            let kind = if asked == Rtype::ANY { rule.kind.unwrap_or(asked) } else { asked };
            let data = Data {
                name: &name,
                zone: &text(&zone.0),
                kind: &kind.to_string(),
                regex: regex.as_str(),
                remote: &request.client.to_canonical().to_string(),
                groups: &groups,
            };
            return rule.answer(&data, request);
        }
        Step::Next("no template is for this question")
    }
}

impl Rule {
    fn answer(&self, data: &Data<'_>, request: &Request) -> Step {
        if self.rcode == Rcode::ServFail as u16 {
            return failed("the template says so");
        }
        let records = |templates: &[Template]| {
            let record = |template: &Template| record_text::read(&template.fill(data)?).ok();
            templates.iter().map(record).collect::<Option<Vec<Rr>>>()
        };
        let (Some(answer), Some(additional), Some(authority)) =
            (records(&self.answer), records(&self.additional), records(&self.authority))
        else {
            return failed("a template makes no record");
        };
        let alias = answer.last().and_then(|record| match record.data() {
            domain::rdata::ZoneRecordData::Cname(cname) => Some(cname.cname().clone()),
            _ => None,
        });
        let plain =
            self.rcode == Rcode::NoError as u16 && additional.is_empty() && authority.is_empty();
        if let (Some(target), true, Rtype::A | Rtype::AAAA) = (alias, plain, request.question.kind)
        {
            return Step::Chase(Chase { aliases: answer, target, follows_rcode: false });
        }
        Step::Answer(Response {
            rcode: self.rcode,
            error: self.error.clone(),
            body: Body::Records { answer, authority, additional },
            ..Response::records("template", Vec::new())
        })
    }
}

fn failed(why: &'static str) -> Step {
    Step::Refuse(Refused { rcode: Rcode::ServFail as u16, error: Some((0, why.to_owned())), why })
}
