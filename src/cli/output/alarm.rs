//! Alarms.

use prost::Message;

use super::{Page, Shown};
use crate::pb::etcdserverpb::{AlarmMember, AlarmResponse};

impl Shown for AlarmResponse {
    fn simple(&self, page: &mut Page) {
        self.alarms.iter().for_each(|alarm| page.line(message_text(alarm)));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
        for alarm in &self.alarms {
            page.id_field("MemberID", alarm.member_id);
            page.field("AlarmType", alarm.alarm().as_str_name());
            page.end_line();
        }
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.array_if_set("alarms", &self.alarms, |page, alarm| {
                page.object(|object| {
                    object.plain_if_set("memberID", alarm.member_id);
                    object.plain_if_set("alarm", alarm.alarm);
                });
            });
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// The protobuf text form: only what is set.
fn message_text(alarm: &AlarmMember) -> String {
    let member = (alarm.member_id != 0).then(|| format!("memberID:{}", alarm.member_id));
    let kind = (alarm.alarm != 0).then(|| format!("alarm:{}", alarm.alarm().as_str_name()));
    member.into_iter().chain(kind).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, tests::printed};

    #[test]
    fn alarms_in_all_forms() {
        let alarm = AlarmMember { member_id: 255, alarm: 1 };
        let raised = AlarmResponse { header: None, alarms: vec![alarm] };
        assert_eq!(printed(Format::Simple, true, &raised), "memberID:255 alarm:NOSPACE\n");
        assert_eq!(printed(Format::Json, true, &raised), "{\"alarms\":[{\"memberID\":255,\"alarm\":1}]}\n");
        assert!(printed(Format::Fields, true, &raised).ends_with("\"MemberID\" : ff\n\"AlarmType\" : NOSPACE\n\n"));
        assert_eq!(printed(Format::Json, false, &AlarmResponse::default()), "{}\n");
    }
}
