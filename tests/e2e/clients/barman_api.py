"""pg-backup-api, as far as members use it to recover: what it is asked for, it has Barman do.

Arguments: the port to listen at, and Barman's configuration file.
"""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, CONFIG = int(sys.argv[1]), sys.argv[2]
OPERATIONS = []


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/status":
            self.answer("OK")
        else:
            code = OPERATIONS[int(self.path.split("/")[-1])].poll()
            self.answer({"status": {None: "IN_PROGRESS", 0: "DONE"}.get(code, "FAILED")})

    def do_POST(self):
        _, _, server, _ = self.path.split("/")
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert wanted["type"] == "recovery", wanted
        command = ["barman", "--config", CONFIG, "recover", "--remote-ssh-command", wanted["remote_ssh_command"]]
        command += [server, wanted["backup_id"], wanted["destination_directory"]]
        OPERATIONS.append(subprocess.Popen(command))
        self.answer({"operation_id": str(len(OPERATIONS) - 1)})

    def answer(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", PORT), Api).serve_forever()
