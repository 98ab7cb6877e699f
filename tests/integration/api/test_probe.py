from tests.integration.api.house import *
from gstd.protocol.jobs import *
from gstd.protocol.execution import *
from gstd.protocol.types import Role
import time
async def test_a(house):
    r = await house.http.get("/api/v1/health"); print(r.status_code, r.text)
    r = await house.http.get("/docs"); print(r.status_code, r.text[:3000], r.headers)
    r = await house.http.get("/docs/openapi.json"); print(r.status_code, r.text[:200])
    r = await house.http.get("/nope"); print(r.status_code, r.text, r.headers)
    r = await house.http.put("/api/v1/health"); print(r.status_code, r.text, r.headers)
    p = await house.requester()
    for path, kw in [
        ("/api/v1/jobs", dict(content=b"{")),
        ("/api/v1/jobs", dict(content=b"x"*(2<<20))),
        ("/api/v1/jobs", dict(content=b'{"module": 5}')),
        ("/api/v1/jobs", dict(content=b'[]')),
        ("/api/v1/jobs", dict(content=b'')),
        ("/api/v1/wasm/upload?name=a%00b", dict(content=MODULE.read_bytes())),
        ("/api/v1/wasm/upload?name=ab", dict(content=b"")),
    ]:
        r = await house.http.post(path, headers=bearer(p), **kw); print(path, r.status_code, r.text, dict(r.headers))
    for path in ["/api/v1/events?after=99999999999999999999999", "/api/v1/jobs/%d/tasks", "/api/v1/jobs/nouuid", "/api/v1/jobs?limit=a", "/api/v1/jobs?limit=0", f"/api/v1/jobs/{new_id()}/tasks?after=99999999999999", f"/api/v1/jobs/{new_id()}/tasks", f"/api/v1/jobs/{new_id()}/results?after=999999999999", "/api/v1/wasm", "/api/v1/wasm/zz/metadata"]:
        r = await house.http.get(path, headers=bearer(p)); print(path, r.status_code, r.text)
    req = await house.request()
    t=time.time()
    j = await p.client.post_job(req); print(j)
    raw = msgspec.json.encode(req)
    for body in [raw.replace(b'"job"', b'"a\\u0000b"'), raw.replace(b'"job"', b'"a\\ud800b"'), raw.replace(b'{index}', b'a\\u0000b')]:
        r = await house.http.post("/api/v1/jobs", headers=bearer(p), content=body); print(body, r.status_code, r.text)
    for args in [("a\0b",), ("\x01",)]:


        r = await house.http.post(f"/api/v1/wasm/{req.module}/execute", headers=bearer(p), content=msgspec.json.encode(ExecuteRequest(input=TaskInput(args=args)))); print(r.status_code, r.text)
    d = await house.device()
    r = await house.http.get("/api/v1/work/modules/aa?\xff", headers={"authorization": "GSTD-Device key=aa,ts=1,nonce=1234567890123456,sig=aa"}); print(r.status_code, r.text)
    a = await house.person(Role.ADMIN)
    r = await house.http.post("/api/v1/test-credits", headers=bearer(a), json={"account_id": str(new_id()), "amount_nano": "5"}); print(r.status_code, r.text)
    r = await house.http.post("/api/v1/test-credits", headers=bearer(a), json={"account_id": str(a.id), "amount_nano": "9999999999999999999"}); print(r.status_code, r.text)
    r = await house.http.post("/api/v1/test-credits", headers=bearer(a), json={"account_id": str(a.id), "amount_nano": "0"}); print(r.status_code, r.text)
    r = await house.http.post("/api/v1/accounts", headers=bearer(a), json={"name": "a\0", "roles":["admin"]}); print(r.status_code, r.text)
    print([ (e.code, e.place, e.detail[:100]) for e in await a.client.recorded_errors()])
    t=time.time()
    [c] = await house.claim(d, j)
    print("claim", time.time()-t)
    print(await d.client.submits([signed(d, c)]))
    await house.referee()
    print(await p.client.job(j.id))
