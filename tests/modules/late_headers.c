/* A module of the tests: a handler before all others that changes request headers and declines,
 * as `X-Late` of the request says: `set` makes an upgrade request of it, `unset` a plain one. */

#include "httpd.h"
#include "http_config.h"
#include "http_protocol.h"
#include "http_request.h"

static int late_handler(request_rec *r)
{
    const char *what = apr_table_get(r->headers_in, "X-Late");
    if (what && !strcmp(what, "set")) {
        apr_table_setn(r->headers_in, "Connection", "Upgrade");
    }
    else if (what && !strcmp(what, "unset")) {
        apr_table_unset(r->headers_in, "Connection");
    }
    else if (what && !strncmp(what, "redirect ", 9)) {
        apr_table_unset(r->headers_in, "X-Late");
        ap_internal_redirect(what + 9, r);
        return OK;
    }
    return DECLINED;
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_handler(late_handler, NULL, NULL, APR_HOOK_REALLY_FIRST);
}

AP_DECLARE_MODULE(late_headers) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks
};
