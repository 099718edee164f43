/* A module of the tests: every client has a link-local address, as httpd shows one. */

#include "httpd.h"
#include "http_config.h"
#include "http_protocol.h"

static int post_read_request(request_rec *r)
{
    r->useragent_ip = "fe80::1%lo";
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_post_read_request(post_read_request, NULL, NULL, APR_HOOK_LAST);
}

AP_DECLARE_MODULE(useragent_scope) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks
};
