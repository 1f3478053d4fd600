"""What `patroni_aws` talks to: EC2 with IAM and STS by moto, and the metadata service of one of its instances.

    aws_stand_in.py EC2_PORT METADATA_PORT

Once the instance is there, EC2 checks signatures and rights, as the real one does. Beside the instance's questions the metadata
service answers

    GET /tags                      the tags of the instance and of each of its volumes, and removes them
    PUT /mode tokens               from now on nobody is answered without a token
    PUT /mode no-tokens            from now on there are none
    PUT /mode late-credentials     the next question for credentials has no answer
    PUT /mode bad-credentials      from now on the credentials are not those of the role
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from moto import settings
from moto.ec2 import ec2_backends
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"
ROLES = "/latest/meta-data/iam/security-credentials/"
TOKEN = "a-token"

ec2_port, metadata_port = map(int, sys.argv[1:])
server = ThreadedMotoServer("127.0.0.1", ec2_port, verbose=False)
server.start()
url = f"http://127.0.0.1:{ec2_port}"


def client(service):
    return boto3.client(
        service, REGION, endpoint_url=url, aws_access_key_id="admin", aws_secret_access_key="admin"
    )


def allowed(actions, **more):
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"} | more
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


ec2, iam = client("ec2"), client("iam")
image = ec2.describe_images()["Images"][0]["ImageId"]
started = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]
instance = started["InstanceId"]
zone = started["Placement"]["AvailabilityZone"]
more = ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"]
ec2.attach_volume(InstanceId=instance, VolumeId=more, Device="/dev/sdf")
# Somebody else's, that must stay as it is.
other = ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"]
trust = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
role = iam.create_role(RoleName="member", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
iam.put_role_policy(
    RoleName="member", PolicyName="tags", PolicyDocument=allowed(["ec2:CreateTags", "ec2:DescribeVolumes"])
)
credentials = client("sts").assume_role(RoleArn=role, RoleSessionName=instance)["Credentials"]
# From now on.
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0

backend = next(account[REGION] for account in ec2_backends.values() if REGION in account)
modes = {"no-tokens"}


def tags():
    """Behind the API's back, which would want a signature."""
    told = {}
    for resource in [instance, *backend.volumes]:
        told[resource] = dict(backend.tags.pop(resource, {}))
    return told


class Metadata(BaseHTTPRequestHandler):
    def do_PUT(self):
        if self.path == "/mode":
            mode = self.rfile.read(int(self.headers["Content-Length"])).decode().strip('"')
            modes.add(mode)
            modes.discard({"tokens": "no-tokens", "no-tokens": "tokens"}.get(mode))
            self.answer(200, "")
        elif self.path == "/latest/api/token" and "no-tokens" not in modes:
            good = int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
            self.answer(200 if good else 400, TOKEN)
        else:
            self.answer(404, "")

    def do_GET(self):
        if self.path == "/tags":
            self.answer(200, json.dumps(tags()))
        elif "tokens" in modes and self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            self.answer(401, "")
        elif self.path == "/latest/dynamic/instance-identity/document":
            self.answer(200, json.dumps({"instanceId": instance, "region": REGION, "version": "2017-09-30"}))
        elif self.path == ROLES:
            late = "late-credentials" in modes
            modes.discard("late-credentials")
            self.answer(404 if late else 200, "member")
        elif self.path == f"{ROLES}member":
            bad = "bad-credentials" in modes
            self.answer(200, json.dumps({
                "Code": "Success",
                "AccessKeyId": credentials["AccessKeyId"],
                "SecretAccessKey": "not-the-secret" if bad else credentials["SecretAccessKey"],
                "Token": credentials["SessionToken"],
                "Expiration": credentials["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            }))
        else:
            self.answer(404, "")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        print(self.command, self.path, *arguments, flush=True)


print("ready", instance, more, other, flush=True)
ThreadingHTTPServer(("127.0.0.1", metadata_port), Metadata).serve_forever()
