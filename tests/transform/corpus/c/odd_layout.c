#include <stdio.h>
static int f(int a,int b){int r=0;for(int i=0;i<a;i++){r+=b;if(r>20)break;else r++;}return r;}
  static
    int
  g ( int   n )
{ while(n>10)n-=3;return n; }
	int main ( void ) { int a=2;int b=3 ;
printf(
  "%d %d\n" ,
    f(a,b)
  , g ( 25 )
 ) ; if(a<b){printf("less\n");}else{printf("more\n");}
      return
   0; }
